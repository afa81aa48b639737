"""The protocol and its interpreters: reference, observe, fixed, record."""
