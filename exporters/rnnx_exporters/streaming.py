def stream_graph(graph, contract):
    raise NotImplementedError
