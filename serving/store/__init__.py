"""Where users' histories and profiles are kept between requests."""
