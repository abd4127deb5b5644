package agent

// CalmMonitor is for tests: in a guest it is part of Boot.
var CalmMonitor = calmMonitor
