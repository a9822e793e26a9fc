"""Who is served next, and what each tenant may take: decisions only, apart from any protocol."""
