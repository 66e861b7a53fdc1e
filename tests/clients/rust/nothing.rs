//! Nothing: this package only names what is to be fetched.
