"""``visrep collect``: record episodes into a dataset."""
