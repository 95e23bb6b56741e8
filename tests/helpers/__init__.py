"""What tests share. No test imports another one: what two of them need is here."""
