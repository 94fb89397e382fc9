"""The steps of a stream: map, filter, shuffle, batch, and so on."""
