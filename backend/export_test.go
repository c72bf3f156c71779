package backend

// HealthOver is Health over connections of the test's choice.
var HealthOver = health
