// This file lets the package declare functions without a body, which
// clone.go links to the runtime's fork hooks.
