"""Where rows come from, a file for each kind."""
