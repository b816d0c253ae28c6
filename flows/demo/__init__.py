"""The demo: real requests, real tools, two weeks of production in minutes."""
