"""Which versions of a model are wanted, and what each is doing. Pure: the time is passed in."""
