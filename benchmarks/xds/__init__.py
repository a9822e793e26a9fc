"""xDS: what a thousand clients cost a proxy, and how soon they all know of a change."""
