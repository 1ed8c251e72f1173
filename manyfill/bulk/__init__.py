"""Filling a folder or shards of pictures: in batches, over ranks or on Ray, resumable, with a report."""
