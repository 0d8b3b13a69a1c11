"""One module a verb, imported only when the verb runs; the command line finds them in `lab.cli.VERBS`."""
