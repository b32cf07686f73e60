"""agents/data_mixing"""
