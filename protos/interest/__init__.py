"""The generated code of package interest; the .proto files beside it are the source."""
