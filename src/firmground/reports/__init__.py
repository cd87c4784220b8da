"""What a run leaves behind: JSON for machines, HTML for people, SARIF for code scanning, a record to repeat it from."""
