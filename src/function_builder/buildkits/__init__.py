"""The BuildKits of a builder: their addresses, their health, and the choice of one."""
