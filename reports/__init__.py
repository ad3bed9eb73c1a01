"""Reports and pages: values in, text or bytes out."""
