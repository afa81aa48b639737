"""Numbers: formats, wide products, tables, roots and ternary weights."""
