"""What users, items, vectors and bundles are; knows neither event files nor gRPC."""
