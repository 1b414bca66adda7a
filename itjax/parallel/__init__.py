"""How arrays are sharded over devices and placed on them."""
