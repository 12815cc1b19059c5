"""The demo: one YAML to a tuned model, with every command that a user would type shown as it runs."""
