"""What a row is: roles, types and kinds of columns, read from a curated schema."""
