"""Messages: which are sent, on which links between cores and chips."""
