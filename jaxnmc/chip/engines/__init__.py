"""What runs a placed model: the functional and the stepped engine."""
