def sentence(greeting, who):
    return f"{greeting}, {who}"
