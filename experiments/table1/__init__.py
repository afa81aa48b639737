"""What number formats cost: rows, quoted figures and tables of the study."""
