"""A pushed model as LiteRT files for phones and small machines, and the client that reads them."""
