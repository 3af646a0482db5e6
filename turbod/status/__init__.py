"""How a running turbod is: its `/status`, read from outside and put into words."""
