"""One module a file format: bytes to batches of rows, in memory that does not grow with the file.

A reader takes `(stream, source, settings)`: an open binary file, what to call it, and how to read it. It gives
batches and dead letters and raises what its parser does when the file is no such file or is cut off.
"""
