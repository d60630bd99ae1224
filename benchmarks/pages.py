def missing():
    return None
