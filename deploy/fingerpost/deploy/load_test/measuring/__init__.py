"""What a load test plans, counts and reports. Pure: the time is passed in."""
