"""What the exchange feed is made of: the line of one stream, the exchange's clock, its REST side and its websockets."""
