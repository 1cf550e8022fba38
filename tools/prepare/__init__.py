"""A user's recordings become a data set in LJ Speech's layout."""
