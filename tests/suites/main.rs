//! One integration binary over the finished product.
