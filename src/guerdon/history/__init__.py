"""What has happened in a wallet: its entries, its balance at any past time, monthly statements, and its changes as they are made."""
