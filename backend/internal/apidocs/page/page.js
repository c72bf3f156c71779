"use strict";

// nothing takes the place of a part that asks for credentials.
const nothing = () => () => null;

// For reading only: no request is sent but that for the document.
SwaggerUIBundle({
	url: "../openapi.json",
	dom_id: "#api",
	deepLinking: true,
	docExpansion: "list",
	defaultModelsExpandDepth: 0,
	operationsSorter: "alpha",
	supportedSubmitMethods: [],
	validatorUrl: null,
	queryConfigEnabled: false,
	plugins: [{ wrapComponents: { authorizeBtn: nothing, authorizeOperationBtn: nothing } }],
});
