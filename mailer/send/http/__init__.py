"""Next hops that take mail over HTTP: what is posted to them, what they answer, and the exchange itself."""
