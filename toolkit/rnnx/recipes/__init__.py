"""Classic uses of recurrent networks, trained on real data that comes inside packages."""
