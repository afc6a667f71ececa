"""Send mail to next hops with an HTTP interface: the requests, their answers, and the exchange itself."""
