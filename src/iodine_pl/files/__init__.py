"""Files and addresses, of any content: nothing here knows a model or a dataset."""
