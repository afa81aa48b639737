"""What `loihi_tables.py` prints: the paper's rows, the algebra, the tables."""
