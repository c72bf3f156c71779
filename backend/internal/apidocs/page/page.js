"use strict";

// For reading only: no request is sent but that for the document.
SwaggerUIBundle({
	url: "../openapi.json",
	dom_id: "#api",
	deepLinking: true,
	docExpansion: "none",
	defaultModelsExpandDepth: 0,
	operationsSorter: "alpha",
	supportedSubmitMethods: [],
	validatorUrl: null,
	queryConfigEnabled: false,
});
