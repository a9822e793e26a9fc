"""Who may do what: values that transports, proxies and workers share, none of them tied to HTTP."""
