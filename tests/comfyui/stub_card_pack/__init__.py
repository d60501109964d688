NODE_CLASS_MAPPINGS: dict = {}  # all that this pack does is in prestartup_script.py
