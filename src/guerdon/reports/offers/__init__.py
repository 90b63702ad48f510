"""Reports on offers: what became of their vouchers, and what was refused."""
