// Package rule is the rule machine.
package rule
