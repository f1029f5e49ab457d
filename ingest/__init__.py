"""Tables to examples: SQL over CSV and Parquet files, three splits, TFRecord files. Knows no TensorFlow.

`locations` finds files, `tables` opens them in DuckDB (with `unpacking` and `csv_files`), `query` checks
the SQL and fixes the feature types, `splits` says which row goes where, `plan` holds all of it as one value
with a content fingerprint, `records` encodes rows and `examples` writes them.
"""
