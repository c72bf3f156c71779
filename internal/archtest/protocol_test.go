package archtest

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const protocolDocument = root + "/docs/03-httvps-protocol.md"

// testsIn are the packages whose tests hold the rules of the protocol document.
var testsIn = map[string]string{
	"wire":       "sdk/go/wire",
	"mux":        "sdk/go/mux",
	"knock":      "sdk/go/knock",
	"carrier":    "sdk/go/carrier",
	"padding":    "sdk/go/padding",
	"httvps":     "sdk/go/httvps",
	"protocol":   "gateway/internal/protocol",
	"server":     "gateway/internal/server",
	"auth":       "gateway/internal/auth",
	"config":     "gateway/internal/config",
	"masquerade": "gateway/internal/masquerade",
	"nodes":      "gateway/internal/nodes",
	"upstream":   "gateway/internal/upstream",
	"control":    "backend/internal/control",
	"ticket":     "internal/ticket",
	"gateway":    "gateway",
	"e2e":        "e2e",
}

// rules maps each rule of docs/03-httvps-protocol.md, by words of its sentence or
// of its row that occur once in the document, to the tests that fail when the code
// breaks it. A rule without a row fails the test, and so does a row whose words or
// tests do not exist: whoever changes a sentence meets its tests, and the other way
// round. Rows of part 10 and 11 repeat rules that stand elsewhere, with their codes
// and numbers.
var rules = map[string]string{
	// 1 Layers
	"an endpoint MUST go on reading its carrier": "mux.TestReadingGoesOnWhileWritingIsStuck mux.TestReadingGoesOnWhileAMessageOfManyStreamsIsStuck mux.TestReadingGoesOnThoughNobodyAcceptsStreams mux.TestReadersThatNeverReadDoNotStopAnother carrier.TestReadingGoesOnWhilePongsWait",

	// 2 Carrier
	"The client opens a TLS 1.3 connection":           "carrier.TestTheClientSpeaksNoTLSBefore13 carrier.TestMessagesOfEverySizeComeBack carrier.TestDialRefuses carrier.TestIsUpgradeAsksForEveryPoint httvps.TestAServiceWithAnotherKeyIsNotTrusted",
	"answers 101 with exactly `httvps.v1`":            "carrier.TestOddOffersStillGetAProper101 carrier.TestOnlyAGatewaysAnswerIsTaken",
	"A request that is not right in every point":      "carrier.TestIsUpgradeAsksForEveryPoint server.TestOnlyARequestThatIsRightInEveryPointMeetsTheTunnel e2e.TestStrangersMeetASite",
	"No WebSocket extension is offered":               "carrier.TestOnlyAGatewaysAnswerIsTaken",
	"A frame with a reserved bit set":                 "carrier.TestWhatTheGatewayReads carrier.TestAReservedBitIsAnsweredWith1002",
	"A text message is answered with CLOSE(protocol)": "carrier.TestWhatTheGatewayReads",
	"A message is 1 to n whole frames":                "carrier.TestWhatTheGatewayReads wire.TestMessageVectors",
	"WebSocket fragmentation MUST be accepted":        "carrier.TestWhatTheGatewayReads carrier.TestSizeOfAMessageInFragments",
	"An empty message is an error (protocol)":         "wire.TestMessageVectors mux.TestBrokenRulesEndTheSession",
	"WebSocket pings MUST be answered with pongs":     "carrier.TestPingIsAnswered",

	// 2.1 Knock
	"therefore switches protocols only for a request": "server.TestOnlyARequestThatIsRightInEveryPointMeetsTheTunnel e2e.TestStrangersMeetASite",
	"*key* is 32 bytes": "knock.TestKnockVectors knock.TestWorkedKnockOfTheDocument",
	"The gateway accepts a knock whose version is 1":      "knock.TestKnockVectors knock.TestKnockIsAcceptedFor15MinutesBothWays knock.TestKnockIsGoodForItsKeyAndHostOnly knock.TestEveryBitIsUnderTheMac",
	"It decides without input or output":                  "knock.TestVerifyNeedsMemoryOfAFixedSize",
	"carries the cookie more than once, the first counts": "server.TestTheFirstCookieOfAnyFormCounts",
	"While keys rotate, two are in force":                 "control.TestKnockKeysRotate control.TestKnockKeysAreForgottenWhenTheyAreInForceNoMore",
	"more than 10 minutes it MUST knock once more":        "httvps.TestAWrongClockKeepsNobodyOut httvps.TestARefusedKnockIsTriedAgainOnlyForAnotherClock",

	// 2.2 Strangers
	"is answered by one handler":                  "gateway.TestAStrangerCannotTellAGatewayFromASite e2e.TestStrangersMeetASite server.TestOnlyARequestThatIsRightInEveryPointMeetsTheTunnel",
	"Nothing that happens before the 101 reaches": "gateway.TestAStrangerCannotTellAGatewayFromASite",

	// 3 Frames
	"A frame of an unknown type with C = 0 MUST be skipped": "mux.TestUnknownFramesThatAreNotCriticalAreSkipped wire.TestFrameVectors",
	"never get a meaning; an endpoint MAY send them":        "mux.TestUnknownFramesThatAreNotCriticalAreSkipped",
	"`length` is at most 16,383":                            "wire.TestFrameVectors mux.TestMalformedVectorsEndTheSessionWithTheirCode",
	"A frame MUST NOT reach over the end of its message":    "wire.TestMessageVectors mux.TestBrokenRulesEndTheSession",
	"`stream_id` is odd and at least 1":                     "wire.TestFrameVectors mux.TestDataIsJudgedAlikeAloneAndAmongOthers",
	"A payload with bytes missing or left over":             "wire.TestFrameVectors wire.TestEveryPrefixOfAPayloadIsAnErrorOrAShorterFrame mux.TestMalformedVectorsEndTheSessionWithTheirCode",

	// 4 Integers, TLVs, addresses
	"The shortest form is REQUIRED":                            "wire.TestVarintVectors",
	"Any other encoding is an error (protocol)":                "wire.TestVarintVectors",
	"keys MUST be strictly ascending":                          "wire.TestTLVVectors",
	"An unknown *even* key is an error":                        "wire.TestTLVVectors",
	"A block is at most 8,192 bytes":                           "wire.TestTLVVectors wire.TestFrameVectors",
	"missing bytes are malformed (protocol, the session ends)": "wire.TestAddressVectors",
	"*not acceptable* ends only its stream":                    "wire.TestAddressVectors mux.TestBrokenOpensEndOnlyTheirStream mux.TestDatagramFromAnUnacceptableAddressIsDroppedAlone",
	"a name with a byte other than":                            "wire.TestAddressVectors",
	"a name whose last label is all digits":                    "wire.TestAddressVectors",
	"Names are lower case on the wire":                         "wire.TestHostVectors",

	// 5 Handshake
	"CHALLENGE is the gateway's first frame":                         "httvps.TestAGatewayThatBreaksTheHandshakeIsToldHow protocol.TestAnAdmittedDeviceGetsItsSession",
	"HELLO is the client's first frame":                              "protocol.TestABrokenFirstMessageEndsTheHandshake httvps.TestHelloProvesTheKeyForThisChallengeHostAndConnection",
	"A gateway that has not received a whole HELLO":                  "protocol.TestASilentDeviceIsClosedAfterTenSeconds",
	"MUST NOT send any other frame before READY":                     "protocol.TestAnAdmittedDeviceGetsItsSession httvps.TestAGatewayThatBreaksTheHandshakeIsToldHow",
	"REJECT, RESUME and RESUMED are errors (protocol) anywhere else": "mux.TestBrokenRulesEndTheSession",
	"32 fresh random bytes, used once":                               "protocol.TestEveryChallengeIsAnother",
	"keys 2, 4, 6, 8 and 10 are REQUIRED":                            "wire.TestFrameVectors protocol.TestMalformedHellosEndTheHandshakeWithTheirCode",
	"where *rest* is the HELLO's TLV block":                          "wire.TestSigningVectors carrier.TestBothEndsComputeTheSameBinding",
	"The gateway checks, cheapest first":                             "auth.TestEveryFaultOfTheCredentialsIsTheSameRefusal ticket.TestForgedAndOddAccessTokensAreRefused ticket.TestThumbprintIsThatOfRFC8037",
	"Up to here every refusal of credentials":                        "auth.TestEveryFaultOfTheCredentialsIsTheSameRefusal",
	"Only then: the token's expiry":                                  "server.TestDecisionsAreToldByTheirCode auth.TestExpiryIsToldOnlyToWhoHasProvenItself nodes.TestDecisionsOfTheControlPlane",
	"gives no decision in 12 seconds":                                "server.TestDecisionsAreToldByTheirCode nodes.TestTheDecisionHasTwoSeconds nodes.TestWhoWaitsTooLongForAPlaceIsToldToComeAgain nodes.TestNoDecisionIsNoPermission",
	"MUST require capability 5":                                      "auth.TestEveryFaultOfTheCredentialsIsTheSameRefusal auth.TestAProofWithoutBindingCountsWhereTheOperatorSaysSo config.TestTheExampleShowsTheDefaults gateway.TestAFrontMayEndTLSWhereNothingIsBoundToIt",
	"keys 2, 6 and 8 are REQUIRED":                                   "wire.TestFrameVectors httvps.TestMalformedAnswersEndTheHandshakeWithTheirCode",
	"Limits, all REQUIRED":                                           "wire.TestFrameVectors",
	"Each is a whole number":                                         "wire.TestFrameVectors",
	"**REJECT** ends the connection":                                 "httvps.TestAnAnswerOtherThanReadyIsARefusal httvps.TestAPauseThatWasAskedForIsKept httvps.TestEveryCodeIsFinalOrNotWhoeverSaysIt",
	"an unknown number in CHALLENGE is ignored":                      "wire.TestFrameVectors httvps.TestHelloProvesTheKeyForThisChallengeHostAndConnection",

	// 6 Streams
	"The client's first OPEN has id 1":                       "mux.TestOpensGoOutInTheOrderOfTheirIDs",
	"An OPEN whose id is not higher":                         "mux.TestBrokenRulesEndTheSession",
	"A frame for a stream that has ended MUST be ignored":    "mux.TestFramesForAnEndedStreamAreIgnored",
	"refused with RESET(unsupported) where max_udp is 0":     "mux.TestBrokenOpensEndOnlyTheirStream wire.TestFrameVectors",
	"Early data counts as the stream's first bytes":          "mux.TestReceiverJudgesTheBytesOfEveryTrace mux.TestBrokenRulesEndTheSession",
	"it MUST NOT be below early_window":                      "mux.TestBrokenRulesEndTheSession mux.TestStreamsBeginWithTheWindowsOfTheDocument",
	"Before OPENED the gateway sends no DATA":                "mux.TestNothingButResetComesBeforeOpened mux.TestDataNeverOvertakesOpened mux.TestStopBeforeOpenedIsAnsweredBehindIt",
	"Where the target cannot be had":                         "protocol.TestEachFailureOfADialHasItsCode server.TestEveryFailureOfTheUpstreamHasItsWireCode protocol.TestADialThatGetsNoPlaceIsAnsweredInTime",
	"nothing but RESET, STOP and CREDIT may follow":          "mux.TestFinComesBehindAllDataAndNothingBehindIt mux.TestEmptyFinNeedsNoCredit",
	"after its own FIN an endpoint goes on receiving":        "mux.TestBytesGoBothWaysAndEachDirectionEndsByItself protocol.TestBytesAndTheEndOfEachDirectionPassByThemselves e2e.TestHalfClose",
	"The receiver MUST end that direction with an empty FIN": "mux.TestStopIsAnsweredWithAnEmptyFinAndTheWriterLearnsTheCode mux.TestStopFailsTheWriterAndEndsOnlyItsDirection",
	"**RESET(code)** ends both directions at once":           "mux.TestResetFromThereEndsBothDirections protocol.TestTheDevicesResetReachesTheTarget",
	"Nothing may follow it from its sender":                  "mux.TestNothingFollowsResetThatOvertakesItsData mux.TestNothingFollowsReset mux.TestNothingFollowsResetOnAFlow",
	"It counts towards max_streams from OPEN until then":     "mux.TestOpenIsPaidUntilTheStreamHasEnded",
	"A client MUST wait when it is empty":                    "mux.TestOpensWaitForTheirRate mux.TestOpensWaitForAFreePlace",
	"A gateway MUST answer an OPEN beyond max_streams":       "mux.TestOpenBeyondMaxStreamsIsReset mux.TestOpensBeyondTwiceTheRateAreReset mux.TestOpensAreGainedAtTwiceTheRate",

	// 6.1 UDP flows
	"It uses OPEN, OPENED, DGRAM and RESET":                  "mux.TestFramesOfStreamsAreErrorsOnAFlow mux.TestDatagramOnAStreamIsAnError mux.TestFlowsHaveNoWindowAndNoEarlyData",
	"**Kind 3** has any number":                              "mux.TestOpenOfAFlowWithAnyPeerHasNoOtherAddress mux.TestFlowWithAnyPeerNamesItInEachDatagram wire.TestFlowWithAnyPeerHasNoTarget",
	"The client MAY send DGRAM right behind OPEN":            "mux.TestDatagramsMayComeRightBehindOpenAndOfThose32AreHeld",
	"A gateway holds at most 32 datagrams":                   "mux.TestDatagramsMayComeRightBehindOpenAndOfThose32AreHeld",
	"It sends none before OPENED":                            "mux.TestGatewaySendsNoDatagramBeforeOpened",
	"A sender holds at most 64 datagrams a flow":             "mux.TestSenderHolds64DatagramsAndDropsTheOldest mux.TestSenderDropsWhatWaitedLongerThan100Milliseconds mux.TestReceiverHolds64DatagramsAndDropsTheOldest",
	"A datagram over 16,000 bytes is never sent":             "mux.TestDatagramOver16000BytesIsNeverSentAndDroppedByItsReceiver protocol.TestALongDatagramOfATargetIsDropped",
	"It passes on only what comes from an address":           "protocol.TestOnlyAddressesThatAFlowHasSentToAreHeard",
	"To an address that has not answered yet it sends":       "protocol.TestToAnAddressThatDoesNotAnswerLittleIsSent protocol.TestTheNumbersOfFlowsAreThoseOfTheDocument",
	"A datagram to an address that the egress policy denies": "protocol.TestAFlowThatCannotBeHadIsRefusedBeforeOpened protocol.TestOnlyAddressesThatAFlowHasSentToAreHeard upstream.TestNoSpellingSendsADatagramToLoopback",
	"A flow ends by RESET from either side":                  "mux.TestFlowEndsByResetFromHere mux.TestFlowEndsByResetFromThereBehindWhatCameBefore protocol.TestTheIdleEndOfAFlow protocol.TestTheNumbersOfFlowsAreThoseOfTheDocument",
	"An OPEN beyond either is answered with RESET(limit)":    "mux.TestFlowsCountTowardsMaxUDPAndMaxStreams",

	// 6.2 Streams and their targets
	"What a target does is told on its stream":            "protocol.TestTheTargetMayEndFirst protocol.TestTheTargetsResetReachesTheDevice protocol.TestATargetThatTakesNoMoreMayStillAnswer",
	"The other way round, FIN ends what the target reads": "protocol.TestBytesAndTheEndOfEachDirectionPassByThemselves protocol.TestTheDevicesResetReachesTheTarget protocol.TestSilentTargetGoesWithItsStream",
	"A gateway MAY end a stream on which nothing moves":   "protocol.TestAnIdleStreamIsEnded protocol.TestAHalfClosedStreamIsEndedSooner",
	"though max_streams are not open":                     "mux.TestOpensAreRefusedWhenMemoryIsFull protocol.TestTargetsThatReadNoMoreAreBounded",
	"while twice max_streams that were opened":            "mux.TestReadingGoesOnThoughNobodyAcceptsStreams",
	"beyond 2,000 datagrams a second":                     "protocol.TestWhatOneSessionSendsIsBounded protocol.TestTheNumbersOfFlowsAreThoseOfTheDocument",

	// 7 Flow control
	"the sender MUST NOT have sent more bytes than that":         "mux.TestSenderKeepsToTheCreditOfEveryTrace",
	"a repeated one changes nothing and a lower one":             "mux.TestCreditIsAnOffsetThatNeverFalls mux.TestALowerCreditIsIgnored",
	"Bytes over the limit are an error (flow_control)":           "mux.TestOneByteBeyondTheCreditEndsTheSession mux.TestReceiverJudgesTheBytesOfEveryTrace mux.TestDataIsJudgedAlikeAloneAndAmongOthers",
	"a receiver MUST NOT grant credit that it has not set aside": "mux.TestBudgetIsNeverExceededAndComesBack mux.TestBudgetHoldsWhateverStreamsDo mux.TestReadersThatNeverReadDoNotStopAnother",
	"A receiver SHOULD send CREDIT":                              "mux.TestCreditComesWhenHalfOfASmallWindowIsRead mux.TestCreditIsWorthAQuarterOfTheWindow",

	// 7.1 The budget of a session
	"One budget, 32 MiB by default":                      "mux.TestBudgetHoldsWhateverStreamsDo mux.TestDatagramsThatWaitAreBoundedInBytes",
	"| floors | 4/16 |":                                  "mux.TestFloorsAreAShareOfTheBudgetAndAtMost32KiB mux.TestBudgetIsNeverExceededAndComesBack",
	"| growth | up to 11/16 |":                           "mux.TestStreamsBeginWithTheWindowsOfTheDocument mux.TestWindowGrowsToItsShareOnALongPath",
	"| history | of growth's 11/16":                      "mux.TestStreamsShareWhatMayWaitToBeSent mux.TestStreamsGoOnOverCarriersThatBreak mux.TestAFullHistoryHoldsBackAndEndsNothing",
	"| pending | the rest |":                             "mux.TestStreamsShareWhatMayWaitToBeSent mux.TestAStreamHolds128KiBThatItMayNotSend",
	"The speed is measured over a round trip at least":   "mux.TestWindowOfASlowReaderDoesNotGrow mux.TestWindowGrowsToItsShareOnALongPath",
	"the shortest that PING found in the last 5 minutes": "mux.TestTheShortestRoundTripCountsForFiveMinutes",
	"A window never shrinks":                             "mux.TestWindowOfAStalledReaderDoesNotGrow",
	"above 80 % of it windows no longer grow":            "mux.TestWindowsStayWhenMemoryIsTight mux.TestOpensAreRefusedWhenMemoryIsFull mux.TestClientDoesNotOpenWhenMemoryIsFull",

	// 8 Session frames
	"the receiver answers PONG with the same 8":       "mux.TestUnknownFramesThatAreNotCriticalAreSkipped mux.TestAtMostOnePongIsQueued",
	"At most one PONG need be queued":                 "mux.TestAtMostOnePongIsQueued",
	"Its sender sends nothing after it":               "mux.TestCloseIsAnsweredByNothing mux.TestPeersCloseEndsTheSessionAndItsStreams mux.TestContextEndsTheSessionPolitely",
	"MUST NOT contain anything of the user's traffic": "wire.TestErrorTextsFitCloseAndNameTheFrame",
	"A carrier that closes without CLOSE":             "mux.TestCarrierThatClosesEndsTheSession",
	"A gateway SHOULD go on passing its bytes":        "protocol.TestATargetGetsWhatCameWholeBeforeTheSessionsEnd protocol.TestATargetThatTakesItsTimeIsResetFiveSecondsAfterTheSessionsEnd mux.TestWhatCameWholeIsReadAfterTheSessionsEnd",
	"It MUST NOT when the session was ended because":  "protocol.TestWhatIsOnItsWayIsCutOffWithARevokedSession server.TestOnlyTheGatewaysOwnEndLetsTargetsHaveTheRest",
	"It MAY stop earlier for a device that":           "gateway.TestADeviceThatComesAndGoesHoldsNoMoreThanOneSessionMay",
	"the target sees as reset":                        "protocol.TestTheEndOfTheSessionEndsItsDialsAndConnections mux.TestWhatCameInPartIsLostWithTheSession",

	// 8.1 Keep-alive
	"between two and three ninths of silence":       "mux.TestSilentClientPingsAfterTwoToThreeNinths",
	"Any byte received counts as an answer":         "mux.TestAnyByteAnswersAProbe mux.TestBytesOfALongMessageCountAsTheyCome",
	"for the whole of silence ends the session":     "mux.TestGatewayClosesAfterSilence",
	"received nothing for max(2 s, 3 round trips)":  "mux.TestClientFindsOutWithinSevenSecondsThatTheOtherEndIsGone mux.TestFastProbeWaitsForRoundTrips",
	"max(5 s, 4 round trips) from the moment":       "mux.TestFastProbeWaitsForRoundTrips mux.TestThePatienceWithAPingBeginsWhenItIsWritten",
	"for as long as it is not acknowledged (8.3)":   "mux.TestAMissingAcknowledgementIsAskedFor",
	"the 2.5 s double with each, up to 20":          "mux.TestCarriersThatAreSilentInARowAreWaitedForLonger",
	"A write that makes no progress for 20 seconds": "mux.TestWriteWithoutProgressEndsTheSession mux.TestPeerThatDoesNotReadIsGivenUp",

	// 8.2 Order of sending
	"An endpoint SHOULD send, in this order":            "mux.TestControlComesBeforeData mux.TestASmallStreamBesideBulkIsInTheNextBatch mux.TestFlowsDoNotStarveStreams",
	"once it has sent 256 KiB without a pause of 50 ms": "mux.TestAStreamIsBulkAfter256KiB mux.TestAPauseMakesABulkStreamSparse",
	"deficit round robin with a quantum of 16 KiB":      "mux.TestATurnIsWorth16KiB mux.TestBulkStreamsTakeTurns mux.TestEveryFifthTurnIsOfABulkStream mux.TestSparseStreamsGetFourTurnsForOneOfTheBulk",
	"A stream's FIN never overtakes its data":           "mux.TestFinComesBehindAllDataAndNothingBehindIt mux.TestEveryByteArrivesInOrderOnManyStreams",
	"The sender SHOULD keep little unsent":              "carrier.TestTheSystemHoldsLittleThatIsNotSent",

	// 8.3 Acknowledging and resuming
	"With capability 1 a session outlives its carrier":         "mux.TestStreamsGoOnOverCarriersThatBreak gateway.TestNothingIsLostHoweverCarriersBreak httvps.TestASessionGoesOnOverAnotherConnection mux.TestWithoutTheCapabilityAnAckIsSkippedAndNoneIsSent",
	"Each end counts the reliable frames":                      "mux.TestReliableFramesAreCountedAsInEveryTrace",
	"half a frame never counts":                                "mux.TestHalfAFrameNeverCounts",
	"An endpoint SHOULD send it for 64 KiB or 64 frames":       "mux.TestAnAckComesAfter64KiBOr64FramesOr200Milliseconds",
	"A repeated or lower one changes nothing":                  "mux.TestALowerAckChangesNothing",
	"One for frames that were never sent is an error":          "mux.TestReliableFramesAreCountedAsInEveryTrace",
	"An endpoint MUST keep every reliable frame":               "mux.TestWhatWasNotAppliedIsSentAgain mux.TestStreamsGoOnOverCarriersThatBreak",
	"At the bound it MUST NOT send further reliable frames":    "mux.TestAFullHistoryHoldsBackAndEndsNothing mux.TestStreamsGoOnOverCarriersThatBreak",
	"stays what it is for resume_window":                       "mux.TestASessionWithoutACarrierEndsAfterItsWindow mux.TestASessionWithoutACarrierCanBeClosed gateway.TestASessionWithoutACarrierIsASession gateway.TestAGatewayThatKeepsNoSessions",
	"A gateway MAY end it sooner where too many wait":          "gateway.TestSessionsWithoutACarrierAreBounded server.TestSessionsWithoutACarrierAreBoundedInMemory",
	"To make room for the same device's next session":          "gateway.TestADeviceTakesThePlaceOfItsLostSession",
	"on a carrier to any address of the same gateway":          "gateway.TestASessionGoesOnOverAnotherAddressOfItsGateway",
	"attempt MUST be higher than in every earlier RESUME":      "gateway.TestRefusedResumptionsLeaveTheSessionUnharmed mux.TestParkTakesAGoodCarrierAway",
	"The gateway checks the proof in constant time":            "wire.TestResumeProofVectors gateway.TestRefusedResumptionsLeaveTheSessionUnharmed",
	"It closes the session's carrier, if there is one":         "mux.TestParkTakesAGoodCarrierAway httvps.TestANewNetworkGetsANewConnection",
	"A RESUME for a session that is not known, or is over":     "gateway.TestRefusedResumptionsLeaveTheSessionUnharmed gateway.TestASessionWithoutACarrierIsASession gateway.TestAnRxRSNThatCannotBeEndsTheSession",
	"The client MAY then send HELLO on the same connection":    "gateway.TestAHelloMayFollowOnTheSameConnection httvps.TestASessionThatTheGatewayForgotIsReplacedAtOnce",
	"whose attempt is not higher came late":                    "gateway.TestRefusedResumptionsLeaveTheSessionUnharmed",
	"Where the carrier before is not out of use in time":       "server.TestOneAttemptToResumeAtATime",
	"- An rx_rsn above what the other end has sent":            "mux.TestNumbersThatCannotBeEndTheSession gateway.TestAnRxRSNThatCannotBeEndsTheSession",
	"A RESUMED whose proof does not verify":                    "httvps.TestAWrongProofOfTheGatewayIsNotBelieved",
	"Behind RESUMED each end drops what the other has applied": "mux.TestWhatWasNotAppliedIsSentAgain mux.TestStreamsGoOnOverCarriersThatBreak",
	"It MUST read meanwhile":                                   "mux.TestStreamsGoOnOverCarriersThatBreak",
	"A client MAY resume though its carrier is good":           "httvps.TestANewNetworkGetsANewConnection httvps.TestAConnectionIsReplacedFromTimeToTime",
	"Ours does so after 20 to 60 minutes":                      "httvps.TestAConnectionIsReplacedFromTimeToTime httvps.TestAConnectionIsReplacedAfterHalfAGigabyteToTwo",
	"READY may name other URLs at which the gateway":           "protocol.TestAnAdmittedDeviceGetsItsSession gateway.TestAGatewayIsReachedOverItsFronts httvps.TestANewSessionBeginsAtTheFrontThatWorks",
	"goes to the gateway's next URL when an attempt to resume": "httvps.TestASessionWhoseFrontIsBlockedGoesOnAtAnother gateway.TestABlockedAddressCostsNoByte httvps.TestASessionIsNotLeftBeforeItsFrontsWereTried",
	"When at least two in a row, and as many as the gateway":   "httvps.TestADeviceLeavesAGatewayWhoseConnectionsFreeze httvps.TestASessionWhoseConnectionsFreezeWaitsWhereThereIsNoBetter httvps.TestADeviceStaysWhereAllConnectionsFreeze httvps.TestASessionThatFreezesIsKeptUntilAnotherGatewayWorks",
	"stays for 5 minutes at least":                             "httvps.TestAFullGatewayIsNotGoneToAgainAndAgain",
	"What was lost before the network changed does not count":  "httvps.TestConnectionsOfAnotherNetworkHaveNotFrozen",

	// 8.4 Going away
	"It does so with capability 4":                           "mux.TestGoAwayIsUnknownWhereNobodyAgreedOnIt",
	"It is odd or 0 (protocol otherwise)":                    "wire.TestFrameVectors mux.TestGoAwaysThatCannotBeEndTheSession",
	"A later GOAWAY MUST NOT have a higher one":              "mux.TestGoAwaysThatCannotBeEndTheSession",
	"the gateway MUST ignore OPENs and what follows":         "mux.TestAGatewayThatGoesAwayTakesOpensUpToTheLastAndNoneAboveIt",
	"one that is sent again after RESUME is above it still":  "mux.TestAnOpenThatIsSentAgainAfterResumingStaysIgnored mux.TestAGatewayThatGoesAwayTakesOpensUpToTheLastAndNoneAboveIt",
	"The client MUST NOT send an OPEN above it":              "mux.TestWhatTheGatewayHasNotLookedAtIsToldApart mux.TestOpensThatWaitAreToldThatTheGatewayGoesAway",
	"it ends those streams without a word":                   "mux.TestWhatTheGatewayHasNotLookedAtIsToldApart httvps.TestOpensThatWereNotProcessedAreRepeatedElsewhere httvps.TestASocketThatWasNotProcessedIsOpenedElsewhere",
	"then the gateway ends the session with CLOSE(shutdown)": "server.TestSessionsGoElsewhereAndTheLastOnesEndWithTheTime gateway.TestADrainingGatewayLetsSessionsFinish",
	"The session may be resumed meanwhile":                   "gateway.TestASessionIsResumedAtAGatewayThatGoesAway httvps.TestASessionThatWasLeftIsResumed",
	"The client SHOULD begin a session at another gateway":   "httvps.TestADeviceMovesToAnotherGatewayAndItsConnectionsGoOn httvps.TestDevicesMoveOneAfterTheOther httvps.TestOpensThatWereNotProcessedAreRepeatedElsewhere wire.TestFrameVectors",
	"It closes the old session with CLOSE(no_error)":         "httvps.TestADeviceMovesToAnotherGatewayAndItsConnectionsGoOn",
	"TLV 1 names other gateways":                             "wire.TestFrameVectors httvps.TestADeviceMovesToAGatewayThatItLearnsOfByTheWay",
	"A gateway SHOULD first send GOAWAY with":                "server.TestSessionsGoElsewhereAndTheLastOnesEndWithTheTime mux.TestAGatewayThatGoesAwayTakesOpensUpToTheLastAndNoneAboveIt",
	"From then on it MAY end sessions on which no stream is": "server.TestSessionsGoElsewhereAndTheLastOnesEndWithTheTime",
	"A HELLO meanwhile is answered with REJECT(shutdown)":    "gateway.TestADrainingGatewayLetsSessionsFinish",
	// 8.5 What changes while a session lives
	"Without it REAUTH, AUTH, LIMITS and NOTICE":            "mux.TestWithoutTheCapabilityTermsAreUnknownFrames httvps.TestAGatewayWithoutTermsIsShownNothing",
	"**REAUTH** has the keys 4 access_token":                "wire.TestFrameVectors",
	"The signature is by the device key over":               "wire.TestReauthVectors",
	"The gateway checks the signature, the token like that": "auth.TestOnlyALaterTokenOfTheSameDeviceCounts",
	"When all of that holds, the authentication deadline":   "gateway.TestASessionOutlivesItsFirstTokenAndNoOther",
	"**AUTH(code, deadline)** answers":                      "gateway.TestASessionOutlivesItsFirstTokenAndNoOther httvps.TestATokenThatCouldNotBeJudgedIsShownAgain",
	"One at a time: a REAUTH before the answer":             "mux.TestAReauthGetsOneAnswer mux.TestAGatewayTakesOneReauthAtATime",
	"A gateway MAY let a second pass":                       "gateway.TestASessionOutlivesItsFirstTokenAndNoOther",
	"A client SHOULD renew its token in the middle":         "httvps.TestASessionOutlivesItsFirstToken httvps.TestATokenIsShownOverTheNextConnection httvps.TestTokensAreRenewedInTheMiddleOfTheirLife",
	"When the authentication deadline has come":             "gateway.TestASessionOutlivesItsFirstTokenAndNoOther gateway.TestASessionWithoutACarrierEndsWithItsToken",
	"It MAY go on for a while where nobody can get a token": "server.TestTheLastMomentWaitsForAControlPlaneThatIsAway gateway.TestASessionGoesOnWhileNobodyGetsATokenForIt",
	"**LIMITS** has the keys 6 limits and 8 deadline":       "wire.TestFrameVectors",
	"early_window and silence MUST be what READY told":      "mux.TestEarlyWindowAndSilenceStayWhatReadyTold",
	"Streams that are open stay open, whatever":             "mux.TestLimitsThatFallLeaveOpenStreamsAlone",
	"A gateway that allows less MUST go on":                 "mux.TestAGatewayThatAllowsLessTakesWhatIsOnItsWay",
	"A client that has no memory for more streams MAY":      "mux.TestLimitsThatRiseLetMoreStreamsOpenAtOnce mux.TestAGatewayAllowsNoMoreThanItsBudgetHasFloorsFor",
	"TLV 1 says how much is left of a quota":                "wire.TestFrameVectors",
	"Ours come 3 days, 1 day, 1 hour":                       "server.TestACountdownTellsOnceOfEachTime gateway.TestADeviceIsToldWhatChanges",
	// 8.6 Padding
	"A gateway that wants no padding does not offer":        "protocol.TestSessionsArePaddedOnlyWhereBothWantIt gateway.TestWithoutPaddingNothingIsAdded mux.TestWithoutThePolicyNothingIsPadded",
	"What is to be added the gateway says in READY":         "gateway.TestPaddingIsReloadedForNewSessions protocol.TestAnAdmittedDeviceGetsItsSession",
	"All four are REQUIRED":                                 "wire.TestFrameVectors wire.TestPoliciesAreJudgedBeforeTheyAreTold",
	"Where CHALLENGE offers capability 2":                   "protocol.TestTheHandshakeIsPaddedWherePaddingIsOffered padding.TestHandshakesGetALengthBetween600And1400Bytes gateway.TestWhatIsSeenOfASessionIsDrawnAnewForEach",
	"So SHOULD HELLO and RESUME of a client":                "httvps.TestHelloIsPaddedWhereTheGatewayOffersIt gateway.TestWhatIsSeenOfASessionIsDrawnAnewForEach",
	"Behind the handshake an endpoint SHOULD pad the first": "mux.TestTheFirstMessagesOfACarrierArePadded mux.TestTheFirstFramesOfEachStreamArePadded gateway.TestWhatIsSeenOfASessionIsDrawnAnewForEach",
	"How many these are, it draws for each carrier":         "padding.TestHalfToAllOfTheFirstMessagesArePadded mux.TestTheFirstMessagesOfACarrierArePadded mux.TestTheFirstFramesOfEachStreamArePadded",
	"A PAD as the last frame of the message makes it":       "padding.TestMessagesGetTheSmallestSizeThatTheyFitAndUpToTheSpreadMore mux.TestLongerPiecesArePaddedUpToTheLargestSize mux.TestPaddedMessagesFitTLSRecords",
	"By a single byte and by 66 bytes":                      "wire.TestAPadIsAsLongAsItIsAskedFor padding.TestWhatIsAddedIsAFrame",
	"A message above all of *sizes* gets no PAD":            "mux.TestLongerPiecesArePaddedUpToTheLargestSize mux.TestNothingComesBehindCloseNotEvenPadding",
	"An endpoint MUST NOT send a message that has only":     "mux.TestTheFirstFramesOfEachStreamArePadded mux.TestNothingComesBehindCloseNotEvenPadding",
	"PAD is no reliable frame, so it is not counted":        "mux.TestPaddingIsNeitherCountedNorSentAgain mux.TestPaddedStreamsGoOnOverCarriersThatBreak httvps.TestAPaddedSessionGoesOnOverAnotherConnection",
	"An endpoint MUST NOT send more bytes of PAD":           "padding.TestPaddingIsAShareOfThePayload mux.TestPaddingStopsAtItsShareOfThePayload",
	"The numbers MUST come from a cryptographic generator":  "padding.TestEverySessionDrawsAnew gateway.TestWhatIsSeenOfASessionIsDrawnAnewForEach",

	// 9 Codes
	"An endpoint treats a code that it does not know": "wire.TestCodeWithoutAMeaningCountsAsInternal mux.TestResetFromThereEndsBothDirections",

	// 10 Errors
	"| varint not shortest, or over 2^53":             "wire.TestVarintVectors mux.TestMalformedVectorsEndTheSessionWithTheirCode carrier.TestWhatTheGatewayReads",
	"| frame of more than 16,383 bytes":               "wire.TestFrameVectors mux.TestMalformedVectorsEndTheSessionWithTheirCode carrier.TestWhatTheGatewayReads",
	"| unknown critical type":                         "httvps.TestAFaultOfTheHandshakeIsAnsweredWithClose mux.TestMalformedVectorsEndTheSessionWithTheirCode protocol.TestMalformedHellosEndTheHandshakeWithTheirCode httvps.TestMalformedAnswersEndTheHandshakeWithTheirCode",
	"| TLV keys not ascending":                        "wire.TestTLVVectors wire.TestFrameVectors",
	"| DGRAM on a TCP stream":                         "mux.TestDatagramOnAStreamIsAnError mux.TestFramesOfStreamsAreErrorsOnAFlow mux.TestFlowsHaveNoWindowAndNoEarlyData",
	"| frame from the wrong end, in the wrong phase":  "mux.TestBrokenRulesEndTheSession protocol.TestABrokenFirstMessageEndsTheHandshake mux.TestDataBeforeOpenedIsJudgedAlikeAloneAndAmongOthers",
	"| stream id even or 0":                           "mux.TestBrokenRulesEndTheSession mux.TestDataIsJudgedAlikeAloneAndAmongOthers",
	"| DATA without bytes":                            "mux.TestBrokenRulesEndTheSession mux.TestDataIsJudgedAlikeAloneAndAmongOthers",
	"| OPENED.recv_window below early_window":         "mux.TestBrokenRulesEndTheSession",
	"| capabilities in HELLO that CHALLENGE":          "protocol.TestReadyTellsOnlyWhatHelloWanted protocol.TestABrokenFirstMessageEndsTheHandshake httvps.TestAGatewayThatBreaksTheHandshakeIsToldHow",
	"| READY without a required key or limit":         "wire.TestFrameVectors httvps.TestMalformedAnswersEndTheHandshakeWithTheirCode protocol.TestMalformedHellosEndTheHandshakeWithTheirCode",
	"| READY with key 4 or 10 without capability 1":   "wire.TestFrameVectors httvps.TestMalformedAnswersEndTheHandshakeWithTheirCode",
	"| padding policy without one of its keys":        "wire.TestFrameVectors wire.TestPoliciesAreJudgedBeforeTheyAreTold",
	"| REAUTH before the answer to the one before;":   "wire.TestFrameVectors mux.TestAReauthGetsOneAnswer mux.TestAGatewayTakesOneReauthAtATime mux.TestEarlyWindowAndSilenceStayWhatReadyTold",
	"| REAUTH, AUTH or LIMITS without capability 3":   "mux.TestWithoutTheCapabilityTermsAreUnknownFrames",
	"| ACK or rx_rsn for frames that were never sent": "mux.TestReliableFramesAreCountedAsInEveryTrace mux.TestNumbersThatCannotBeEndTheSession",
	"| bytes beyond the credit":                       "mux.TestOneByteBeyondTheCreditEndsTheSession mux.TestReceiverJudgesTheBytesOfEveryTrace",
	"| CLOSE with a reason over 128 bytes":            "mux.TestMalformedVectorsEndTheSessionWithTheirCode",
	"| malformed address |":                           "mux.TestMalformedVectorsEndTheSessionWithTheirCode wire.TestAddressVectors",
	"| GOAWAY with an even last_stream_id but 0":      "wire.TestFrameVectors mux.TestGoAwaysThatCannotBeEndTheSession",
	"| GOAWAY without capability 4":                   "mux.TestGoAwayIsUnknownWhereNobodyAgreedOnIt",
	"| not acceptable address (part 4)":               "mux.TestBrokenOpensEndOnlyTheirStream wire.TestAddressVectors",
	"| unknown kind in OPEN":                          "mux.TestBrokenOpensEndOnlyTheirStream",
	"| OPEN beyond max_streams or max_udp":            "mux.TestOpenBeyondMaxStreamsIsReset mux.TestFlowsCountTowardsMaxUDPAndMaxStreams",
	"| datagram over 16,000 bytes":                    "mux.TestDatagramOver16000BytesIsNeverSentAndDroppedByItsReceiver mux.TestDatagramFromAnUnacceptableAddressIsDroppedAlone",
	"the first in this order counts":                  "wire.TestFrameVectors wire.TestMessageVectors wire.TestTLVVectors",

	// 10.1 Floods
	"Beyond the rate (part 6): RESET(enhance_calm)":          "mux.TestOpensBeyondTwiceTheRateAreReset",
	"A dial holds its place among the gateway's dials":       "protocol.TestADialKeepsItsPlaceUntilItEnds",
	"An endpoint counts every frame but DATA, FIN and DGRAM": "mux.TestFramesThatCarryNothingAreBounded mux.TestDataFinAndDatagramsAreNoFlood",
	"It allows 2,000 of them a second":                       "mux.TestFramesThatCarryNothingAreBounded mux.TestPayloadPaysForFrames mux.TestCreditThatComesWithDataIsNoFlood",
	"it allows three frames for each":                        "mux.TestTheFloodsAllowanceGrowsWithTheLimits mux.TestAllStreamsThatAreAllowedMayComeAndGoAtOnce",
	"With capability 2 it is *messages* frames more":         "mux.TestPaddingThatWasAgreedOnIsNoFlood",
	"Beyond that: CLOSE(enhance_calm)":                       "mux.TestFramesThatCarryNothingAreBounded mux.TestAMillionPingsEndTheSession mux.TestAHundredThousandOpensAndResetsEndTheSession",
	"A peer that sends more gets no answer to them":          "carrier.TestWebSocketFramesThatCarryNothingAreBounded",
	"never end a session: programs that try many":            "mux.TestResetsThatTargetsCauseNeverEndASession",
	"At most 1,024 refusals wait to be sent":                 "mux.TestAThousandAnd24RefusalsMayWait mux.TestOpensThatDoNotReadTheirRefusalsEndTheSession",

	// 11 Limits: the tables as a whole
	"| message | 65,536 bytes |":                          "wire.TestLimitsAreThoseOfTheDocument carrier.TestWhatTheGatewayReads",
	"| frame payload | 16,383 bytes |":                    "wire.TestLimitsAreThoseOfTheDocument",
	"| HELLO | 8,192 bytes |":                             "wire.TestLimitsAreThoseOfTheDocument",
	"| access token | 4,096 bytes |":                      "wire.TestLimitsAreThoseOfTheDocument",
	"| TLV block / ext block of OPEN |":                   "wire.TestLimitsAreThoseOfTheDocument",
	"| name in an address | 253 bytes |":                  "wire.TestLimitsAreThoseOfTheDocument",
	"| CLOSE reason | 128 bytes |":                        "wire.TestLimitsAreThoseOfTheDocument",
	"| agent | 64 bytes |":                                "wire.TestLimitsAreThoseOfTheDocument",
	"| largest number |":                                  "wire.TestLimitsAreThoseOfTheDocument",
	"| HELLO after 101 | 10 s |":                          "wire.TestLimitsAreThoseOfTheDocument protocol.TestASilentDeviceIsClosedAfterTenSeconds",
	"| OPENED or RESET after OPEN | 15 s |":               "wire.TestLimitsAreThoseOfTheDocument protocol.TestADialThatGetsNoPlaceIsAnsweredInTime",
	"| datagram | 16,000 bytes |":                         "wire.TestLimitsAreThoseOfTheDocument",
	"| knock's clock difference | 15 min |":               "knock.TestKnockIsAcceptedFor15MinutesBothWays",
	"| fronts in READY, gateways in GOAWAY, URL of one |": "wire.TestLimitsAreThoseOfTheDocument",
	"| drain_ms | 600,000 ms |":                           "wire.TestLimitsAreThoseOfTheDocument",
	"| messages, share of a padding policy |":             "wire.TestLimitsAreThoseOfTheDocument wire.TestPoliciesAreJudgedBeforeTheyAreTold",
	"| sizes of one, each of them |":                      "wire.TestLimitsAreThoseOfTheDocument wire.TestPoliciesAreJudgedBeforeTheyAreTold",
	"| spread of one |":                                   "wire.TestLimitsAreThoseOfTheDocument wire.TestPoliciesAreJudgedBeforeTheyAreTold",
	"| PAD before there is payload |":                     "wire.TestLimitsAreThoseOfTheDocument padding.TestPaddingIsAShareOfThePayload",
	"| frames of a padded handshake |":                    "wire.TestLimitsAreThoseOfTheDocument padding.TestHandshakesGetALengthBetween600And1400Bytes",
	"| messages, spread, share of padding |":              "wire.TestLimitsAreThoseOfTheDocument config.TestLimitsAreThoseOfTheProtocolDocument",
	"| sizes of padding |":                                "wire.TestLimitsAreThoseOfTheDocument config.TestLimitsAreThoseOfTheProtocolDocument",
	"| max_streams | 256 |":                               "wire.TestLimitsAreThoseOfTheDocument config.TestLimitsAreThoseOfTheProtocolDocument",
	"| max_udp | 64 |":                                    "wire.TestLimitsAreThoseOfTheDocument config.TestLimitsAreThoseOfTheProtocolDocument",
	"| early_window | 32,768 bytes |":                     "wire.TestLimitsAreThoseOfTheDocument config.TestLimitsAreThoseOfTheProtocolDocument",
	"| open_burst, open_rate |":                           "wire.TestLimitsAreThoseOfTheDocument config.TestLimitsAreThoseOfTheProtocolDocument",
	"| resume_window | 60,000 ms |":                       "wire.TestLimitsAreThoseOfTheDocument config.TestLimitsAreThoseOfTheProtocolDocument",
	"| silence | 90,000 ms |":                             "wire.TestLimitsAreThoseOfTheDocument config.TestLimitsAreThoseOfTheProtocolDocument",
	"fill TLS records of 16,384 bytes exactly":            "mux.TestMessagesOfABulkStreamFillTLSRecords mux.TestComposedMessagesFitTLSRecords",

	// 13 Security considerations
	"**Before the proof** of the key a peer learns nothing": "auth.TestEveryFaultOfTheCredentialsIsTheSameRefusal",
	"a gateway MUST judge the address":                      "upstream.TestTheAddressOfEachConnectCallIsCheckedAgain upstream.TestANameIsResolvedOnceAndTheCheckedAddressIsDialled upstream.TestNoSpellingReachesLoopback",
}

// noRules are sentences that sound like rules and ask nothing of an endpoint.
var noRules = []string{
	"The key words MUST, MUST NOT",
	"Losing its key costs the hiding",
}

// ruleWords make a sentence a rule.
var ruleWords = regexp.MustCompile(`\b(MUST|SHOULD|REQUIRED|MAY)\b|\((protocol|frame_size|unsupported|flow_control)\)|\b(CLOSE|RESET|REJECT)\([a-z_]+\)|\bat (most|least) \d|\d (seconds|ms|minutes|datagrams)\b`)

func TestEveryRuleOfTheProtocolHasItsTests(t *testing.T) {
	text, err := os.ReadFile(protocolDocument)
	if err != nil {
		t.Fatal(err)
	}
	sentences := protocolSentences(string(text))
	rows := make([]string, 0, len(rules)+len(noRules))
	for words := range rules {
		rows = append(rows, words)
	}
	rows = append(rows, noRules...)
	held := make(map[string]bool) // sentences that have a row
	for _, words := range rows {
		var in []string
		for _, sentence := range sentences {
			if strings.Contains(sentence, words) {
				in = append(in, sentence)
			}
		}
		if len(in) != 1 {
			t.Errorf("%q is in %d sentences of the document, want 1", words, len(in))
			continue
		}
		held[in[0]] = true
	}
	for _, sentence := range sentences {
		if !held[sentence] && (strings.HasPrefix(sentence, "| ") || ruleWords.MatchString(sentence)) {
			t.Errorf("a rule without a row: %s", sentence)
		}
	}
	for words, names := range rules {
		for name := range strings.FieldsSeq(names) {
			if pkg, test, _ := strings.Cut(name, "."); !hasTest(t, pkg, test) {
				t.Errorf("%q: there is no test %s", words, name)
			}
		}
	}
}

var (
	fenced     = regexp.MustCompile("(?s)```.*?```")
	blockStart = regexp.MustCompile(`\n\s*\n|\n(- |\||#)`)
	sentenceIn = regexp.MustCompile(`\.\*{0,2} +([A-Z*` + "`" + `])`)
	heading    = regexp.MustCompile(`^#+ ([\d.]*\d)`)
)

// protocolSentences returns the sentences of the document, and the rows of the tables
// of its parts 10 and 11; the tables of other parts say what frames are made of, which
// vectors test. Part 12 is an example.
func protocolSentences(text string) []string {
	text = fenced.ReplaceAllString(text, "\n\n")
	text = blockStart.ReplaceAllString(text, "\x00$1")
	part := ""
	var all []string
	for block := range strings.SplitSeq(text, "\x00") {
		block = strings.Join(strings.Fields(block), " ")
		if m := heading.FindStringSubmatch(block); m != nil {
			part = m[1]
			continue
		}
		switch {
		case block == "", part == "12", strings.HasPrefix(block, "|--"), strings.HasPrefix(block, "|---"):
		case strings.HasPrefix(block, "|"):
			ruled := (part == "10" || part == "11") && !strings.HasSuffix(block, "| code |") && !strings.HasSuffix(block, "| |")
			if ruled || part == "7.1" && !strings.HasPrefix(block, "| part") {
				all = append(all, block)
			}
		default:
			for sentence := range strings.SplitSeq(sentenceIn.ReplaceAllString(block, ".\x00$1"), "\x00") {
				all = append(all, sentence)
			}
		}
	}
	return all
}

var testFiles = make(map[string]string) // the text of a package's tests

func hasTest(t *testing.T, pkg, test string) bool {
	t.Helper()
	dir, known := testsIn[pkg]
	if !known {
		return false
	}
	if _, read := testFiles[pkg]; !read {
		files, err := filepath.Glob(filepath.Join(root, dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, file := range files {
			part, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			text.Write(part)
		}
		testFiles[pkg] = text.String()
	}
	return strings.Contains(testFiles[pkg], "\nfunc "+test+"(t *testing.T)")
}
