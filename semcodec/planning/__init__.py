"""The best operating point under a link, a deadline and an energy budget."""
